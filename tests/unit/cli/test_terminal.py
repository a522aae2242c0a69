from forkproxy.cli.terminal import in_colour


def test_a_closed_standard_output_has_no_colour():
    assert in_colour("x", "red", None) == "x"
