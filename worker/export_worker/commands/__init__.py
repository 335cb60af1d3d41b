"""The worker side's commands, one file each; `cli` imports one when it is called."""
