"""A graph over a prefix: built by SVS, searched by compiled code, with full codes to rescore its shortlist."""
