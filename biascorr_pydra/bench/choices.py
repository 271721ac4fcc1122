"""What can be chosen by name; imports nothing, so that the command line can list it."""

#: How brain masks are made of scans that bring none.
BRAINS = ("auto", "deepbet", "template", "none")
#: Of heads simulated from label maps: with all tissue outside the brain, or without any.
HEADS = ("whole", "stripped")
#: What a folder holds.
KINDS = ("auto", "bids", "images", "labels")
#: What a corrector is given besides the scan: nothing, or the case's brain mask.
MASKS = ("none", "brain")
