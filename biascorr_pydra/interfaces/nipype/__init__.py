"""Nipype: interfaces, a stand-in for ANTs' N4, and a workflow in the style of niworkflows. Needs an extra."""
