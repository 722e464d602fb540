"""The build machine's side: image files, their measurements and signatures."""
