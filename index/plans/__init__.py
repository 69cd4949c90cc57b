"""Plans of a search, what calibration measured of them, and the choice among them."""
