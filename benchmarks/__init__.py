"""What is measured, and how: the speed of sagas on real parts, against work by hand and against peers."""
