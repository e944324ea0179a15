"""A simulated agency and the embedded servers that the demo and the tests run on."""
