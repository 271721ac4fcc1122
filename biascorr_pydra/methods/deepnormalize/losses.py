"""DeepNormalize's losses: the weighted Dice loss and the two sides of the (K + 1)-class game.

References
----------
Delisle et al. Medical Image Analysis, 2022 (the paper), equations 1 to 3 and algorithm 1.
"""

from __future__ import annotations

import torch
from torch.nn import functional

__all__ = ["CLASS_WEIGHTS", "adversarial_loss", "dice_loss", "discriminator_loss"]

#: Of BG, CSF, GM and WM, as the paper's text has them (its public code has .28 for CSF and .30 for WM).
CLASS_WEIGHTS = (0.22, 0.30, 0.20, 0.28)
EPSILON = 1e-5


def dice_loss(probabilities: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """Equation 1: 1 - (e + 2 sum_c w_c sum_v s y) / (e + sum_c w_c sum_v (s + y)), sums over all patches of the batch.

    Parameters
    ----------
    probabilities : tensor (B, 4, I, J, K)
        Softmax of the segmenter.
    truth : integer tensor (B, I, J, K)
        Class of each voxel, 0 to 3.

    Returns
    -------
    Scalar tensor from 0 (all right) to 1.
    """
    wanted = functional.one_hot(truth.long(), len(CLASS_WEIGHTS)).movedim(-1, 1).to(probabilities.dtype)
    weights = torch.tensor(CLASS_WEIGHTS, dtype=probabilities.dtype, device=probabilities.device)
    axes = (0, 2, 3, 4)
    both = (weights * (probabilities * wanted).sum(axes)).sum()
    all_ = (weights * (probabilities + wanted).sum(axes)).sum()
    return 1 - (EPSILON + 2 * both) / (EPSILON + all_)


def discriminator_loss(real: torch.Tensor, domains: torch.Tensor, generated: torch.Tensor) -> torch.Tensor:
    """What the discriminator minimizes: -log D_z(x) - log D_{K+1}(G(x)), means over the batch (equation 2).

    Parameters
    ----------
    real, generated : tensors (B, K + 1)
        Logits of real patches and of normalized ones.
    domains : integer tensor (B,)
        0 to K - 1, the domain of each real patch.
    """
    return functional.cross_entropy(real, domains) - _log_generated(generated).mean()


def adversarial_loss(generated: torch.Tensor) -> torch.Tensor:
    """What the generator minimizes beside the Dice loss: -L_dis(D(G(x)), K + 1) = log D_{K+1}(G(x)), mean (equation 3).

    It has no lower bound; the weight lambda of the paper is not in it.
    """
    return _log_generated(generated).mean()


def _log_generated(logits: torch.Tensor) -> torch.Tensor:
    return functional.log_softmax(logits, 1)[:, -1]
