"""OpenAI's batches. Source: platform.openai.com, "Batch API".

Half the price, within 24 hours; 50,000 requests or 200 MB a job. A job is found again by its file, or by its metadata.
"""

from harvest.teachers.batch.protocols.base import Terms
from harvest.teachers.batch.protocols.files import FileBatches

OPENAI = FileBatches(Terms(rows=50_000, bytes=200 * 10**6), tags=True)
