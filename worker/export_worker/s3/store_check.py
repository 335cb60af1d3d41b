"""A small call that shows whether this worker can use its store."""

from concurrent.futures import ThreadPoolExecutor
from functools import partial

from botocore.exceptions import ClientError

from export_worker.s3.calls import LIST_OBJECTS
from export_worker.s3.check_result import CheckResult
from export_worker.s3.client import S3Client
from export_worker.s3.errors import CALL_ERRORS, CallError, code_of, status_of, storage_error
from export_worker.s3.sessions import LateCredentials
from export_worker.s3.threads import run_in_thread


class StoreCheck:
    """Checks one store with one set of credentials.

    The call lists one object. Unlike a HEAD request, its answer names the reason of a refusal.

    Args:
        client: A client with short timeouts that no transfer uses.
        credentials: The credentials of this client and of the client of the transfers.
        executor: The threads of checks. They are not those of transfers: these may all wait for the store.
        bucket: The bucket of the exports.
        prefix: Prefix of all keys, since permissions may depend on it.
    """

    def __init__(
        self, client: S3Client, credentials: LateCredentials, executor: ThreadPoolExecutor, *, bucket: str, prefix: str
    ) -> None:
        self._client = client
        self._credentials = credentials
        self._executor = executor
        self._bucket = bucket
        self._prefix = prefix

    async def run(self, *, reload: bool = False) -> CheckResult:
        """Makes the call.

        Args:
            reload: Look up the credentials again: the store has refused them.
        """
        return await run_in_thread(self._executor, partial(self._run, reload=reload))

    def _run(self, *, reload: bool) -> CheckResult:
        if reload:
            self._credentials.reload()
        try:
            self._client.list_objects_v2(Bucket=self._bucket, Prefix=self._prefix, MaxKeys=1)
        except CALL_ERRORS as error:
            return CheckResult(storage_error(error, LIST_OBJECTS, self._bucket), denied=_is_denial(error))
        return CheckResult()


def _is_denial(error: CallError) -> bool:
    if not isinstance(error, ClientError) or error.operation_name != "ListObjectsV2":
        return False
    return code_of(error) == "AccessDenied" or status_of(error) in {405, 501}
