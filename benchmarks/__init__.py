"""Programs that measure speed and memory, as ratios side by side; see their docstrings."""
