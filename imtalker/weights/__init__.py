"""Files of weights in, configured models out; and the download of the published ones."""
