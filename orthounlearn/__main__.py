"""`python -m orthounlearn` is the program `orthounlearn`."""

from orthounlearn.cli import main

main()
