"""HTTP servers of models under load: one generator for all, this project's, bare ones and peers.

Every server gets the same model file, the same number of threads and the same questions, and every
answer is compared with what the runtime says in this process. A server is a process; so is the
generator, whose own use of the processor is part of its report.
"""
