"""The drawn head: people, poses and faces drawn by the project itself, with known motion."""
