"""HTTP shared by the receiver and the API: bounded bodies, problem responses, client addresses."""
