"""One file per verb that devices use; offline verbs lie beside the converters. Each has ``main(arguments) -> exit code``."""
