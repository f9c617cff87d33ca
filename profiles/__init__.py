"""One complete, commented YAML file per device."""
