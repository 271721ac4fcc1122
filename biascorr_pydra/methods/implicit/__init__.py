"""The idempotent corrector of Simko 2022, trained implicitly on photographs."""
