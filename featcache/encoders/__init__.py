"""One file per encoder architecture, and the table ENCODERS."""
