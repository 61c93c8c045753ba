"""What runs inside a Python script's own process under `runstone run`.

These files are started by their path, in whatever Python the script runs in, also where Runstone is not installed. They
use nothing but what every interpreter has loaded when it starts: a module imported here would be there for the script
before the script asks for it, and one of the script's own folder that has the same name would not.
"""
