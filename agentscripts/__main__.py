"""``python -m agentscripts``."""

from agentscripts.cli import main

main()
