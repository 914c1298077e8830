"""Programs that people already have, as they are, against live workers."""
