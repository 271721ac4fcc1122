"""What is free of a machine's CPUs, GPUs and memory."""

from __future__ import annotations

from biascorr_pydra.resources import Resources

__all__ = ["Room"]

ROUNDING_GB = 1e-6  # sums and differences of GB do not come back to exactly what they were


class Room:
    """What is free; taken before a job begins, and given back when it has ended.

    Parameters
    ----------
    capacity : CPUs, GPUs and memory in all; memory None: not counted
    gpu_ids : names of the GPUs, as CUDA_VISIBLE_DEVICES takes them
    """

    def __init__(self, capacity: Resources, gpu_ids: tuple[str, ...]):
        self._cpus, self._gpus = capacity.cpus, list(gpu_ids)
        self._gb = float("inf") if capacity.mem_gb is None else capacity.mem_gb

    def fits(self, needs: Resources) -> bool:
        """Whether there is room for one job now."""
        return (
            needs.cpus <= self._cpus and needs.gpus <= len(self._gpus) and (needs.mem_gb or 0) <= self._gb + ROUNDING_GB
        )

    def share(self, needs: Resources, waiting: int, most: int) -> int:
        """How many of the jobs that wait, all with the same needs, a lane may be given together.

        Parameters
        ----------
        needs : what each of them needs
        waiting : how many there are
        most : how many at most

        Returns
        -------
        int
            0 or more: those that fall to each free GPU, no more than there is memory for.
        """
        by_gpus = -(-waiting // max(1, len(self._gpus) // needs.gpus))
        by_memory = int(self._gb // needs.mem_gb) if needs.mem_gb else most
        return max(0, min(by_gpus, most, by_memory))

    def take(self, needs: Resources, count: int = 1) -> tuple[str, ...]:
        """Take what ``count`` jobs need on one lane: their memory together, and one job's CPUs and GPUs; the GPUs."""
        gpus = tuple(self._gpus[: needs.gpus])
        del self._gpus[: needs.gpus]
        self._cpus -= needs.cpus
        self._gb -= count * (needs.mem_gb or 0)
        return gpus

    def give_back(self, needs: Resources, gpus: tuple[str, ...], count: int = 1) -> None:
        """Give back what was taken."""
        self._gpus = sorted([*self._gpus, *gpus])
        self._cpus += needs.cpus
        self._gb += count * (needs.mem_gb or 0)
