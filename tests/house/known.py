"""What the checks of the house let pass, and why: private names of other packages."""

# Private names of other packages that a file cannot do without. For each file: the names, and in a comment why.
OTHER_PACKAGES: dict[str, set[str]] = {
    # antspyx keeps the seed of its registrations there, and sets it only for a whole process
    "biascorr_pydra/anatomy/register.py": {"_random_seed"},
    # Nipype has no public way to put one node in the place of another
    "biascorr_pydra/interfaces/nipype/swap.py": {
        "_create_dynamic_traits",
        "_graph",
        "_hashed_inputs",
        "_hashvalue",
        "_inputs",
        "_interface",
        "_set_mapnode_input",
    },
    "biascorr_pydra/interfaces/nipype/base.py": {"_mem_gb"},
    # torch asks the processor by these alone
    "biascorr_pydra/methods/deepnormalize/model.py": {"_is_amx_tile_supported", "_is_avx512_bf16_supported"},
    # Pydra 1.0 is in alpha: what a worker needs of it is not all public
    "biascorr_pydra/workers/engine.py": {
        "_cached_result",
        "_check_for_hash_changes",
        "_checksum",
        "_errored",
        "_executor_name",
        "_from_job",
        "_hashes",
        "_run",
    },
    # Nipype's and niworkflows' own interfaces, to compare with
    "tests/nipype_family/conftest.py": {"_s3_get"},
    "tests/nipype_family/test_interfaces.py": {"_run_interface", "_check_resources"},
    "tests/nipype_family/test_n4_standin.py": {"_check_mandatory_inputs", "_list_outputs", "_parse_inputs"},
    "tests/nipype_family/test_swap.py": {"_create_flat_graph", "_graph"},
}

# Pydra's private names, and how many modules may use them.
PYDRA = {"_cached_result", "_check_for_hash_changes", "_checksum", "_errored", "_from_job", "_hashes", "_run"}
PYDRA_MODULES = 1
