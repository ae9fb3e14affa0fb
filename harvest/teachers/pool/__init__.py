"""A teacher made of teachers: replicas of one, in processes of this machine or placed by Ray, behind one stream.

There is one writer, one journal and one failure limit, however many replicas answer; a request's key does not know of
them, so a run goes on with another number of them.

    teacher     the pool, a Teacher; hands requests out and takes replies
    seats       which request is with which replica, and what becomes of it where one dies
    replica     what runs in a replica: it builds the teacher and answers
    hosts       what a place for replicas owes to the pool; processes and ray are the two that there are
"""
