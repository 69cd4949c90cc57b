"""From a finished training run to an encoder that is served."""
