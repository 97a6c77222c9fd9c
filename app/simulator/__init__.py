"""An embedded Proctor with its token endpoint, for demonstrations and tests.

It behaves like SmarterApp's TDS_Proctor in front of TDS_ExamService as far as the expire call goes: which exams a call
takes, what it returns, how callers are rejected. It fails on demand, by a script or at random from a seed, and keeps a
record of every call: what it changed and when, and whether the response was sent completely.
"""

from app.simulator.faults import FAULTS_HELP, LATE_FAULTS, RANDOM_FAULTS
from app.simulator.scenario import Scenario
from app.simulator.server import Simulator
from app.simulator.service import Outcome
from app.simulator.tokens import TOKEN_FAULTS_HELP

__all__ = ["FAULTS_HELP", "LATE_FAULTS", "RANDOM_FAULTS", "TOKEN_FAULTS_HELP", "Outcome", "Scenario", "Simulator"]
