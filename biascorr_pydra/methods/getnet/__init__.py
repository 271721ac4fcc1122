"""GetNet (Simko 2019), trained implicitly on photographs."""
