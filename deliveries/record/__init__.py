"""The only writers of status and events: outcomes of rounds, reports that came back, orders of the operator."""
