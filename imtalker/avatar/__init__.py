"""The avatar: small weights for drawn heads, and the recipe that trains them."""
