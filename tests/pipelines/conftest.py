"""What the tests of recipes share with those of stage 2: a tiny student."""

from tests.distill.conftest import tiny_student as tiny_student
