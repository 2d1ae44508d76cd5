"""The tests of hello; they import the installed module."""

import unittest

import hello


class TestGreeting(unittest.TestCase):
    """What the server says."""

    def test_name(self) -> None:
        """The greeting has the name in it."""
        assert hello.greeting("you") == "Hello, you!\n"

    def test_nobody(self) -> None:
        """Without a name it greets the world."""
        assert hello.greeting("") == "Hello, world!\n"


if __name__ == "__main__":
    unittest.main()
