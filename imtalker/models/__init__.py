"""The architecture of IMTalker, both weight generations: modules and their sizes."""
