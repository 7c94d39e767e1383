"""Files of other tools as unit lines, and unit lines as their files."""
