"""The avatar: small weights for drawn heads, and how they are made."""
