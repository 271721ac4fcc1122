"""The evaluation of a study of several sites."""
