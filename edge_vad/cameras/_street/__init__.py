"""What the synthetic camera sees: the scene, the figures in it, how they are drawn, and who comes along when."""
