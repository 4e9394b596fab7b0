"""The population game and its parts: who meets whom, who may punish whom, what reputation is."""
