"""Does it pay on my own task? One budget as one cosine and as cycles, over several seeds."""

from .document import read_study as read_study
from .document import write_study as write_study
from .launch import run as run
from .page import write_page as write_page
from .scores import Run as Run
from .verdict import sentences as sentences
from .verdict import summarize as summarize
