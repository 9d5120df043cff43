"""Tables of runs beside the papers' figures."""
