"""`runstone run`: a program of any kind as a run, without a line of Runstone in it.

Three processes share the work. `front` is the one that the user started: it waits, and ends as the program does.
`recorder` is its fork: the program's parent, which passes on and keeps what it prints, and records; when the front is
killed it goes on, and when it is killed itself, the front goes on without a record. The program is the third; where it
is Python, `child` runs in its process and sees what it makes of its command line.
"""
