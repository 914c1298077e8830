"""The models that are present: found, described, downloaded, removed. Front process."""
