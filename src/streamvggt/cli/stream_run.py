"""Push the frames of an input through a session and write the predictions."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from tqdm import tqdm

from streamvggt.cli.inputs import write_inputs
from streamvggt.cli.interrupts import InterruptHandler
from streamvggt.cli.memory_settings import Session
from streamvggt.cli.run_messages import log_submaps, print_skipped, warn_low_memory
from streamvggt.cli.run_metadata import RunMetadata
from streamvggt.cli.saved_state import STATE_NAME, StreamCheckpoint
from streamvggt.export import (
    BackgroundWriter,
    Corrections,
    ExportOptions,
    ReconstructionResult,
    ResultWriter,
    export_tum,
    write_corrections,
)
from streamvggt.folder_lock import FolderLock
from streamvggt.stream.feed import predicted
from streamvggt.stream.frames import FrameSource
from streamvggt.stream.submaps.session import SubmapSession
from streamvggt.words import counted


def run_stream(frames: FrameSource, session: Session, lock: FolderLock, record: RunMetadata, goes_on: bool) -> bool:
    """Push all frames and write the predictions. Return False if the run was interrupted before the end."""
    out = lock.folder
    state = StreamCheckpoint(out / STATE_NAME, session)
    if goes_on:
        writer, frames = resume_stream(frames, session, out, state)
    else:
        writer = ResultWriter(out)
        state.discard()
    if writer.num_frames == 0:
        warn_low_memory(session.model, session, frames)
    is_live = frames.kind == "live"
    record.progress(writer.num_frames, frames.skipped, session.statistics)
    if not goes_on:
        write_inputs(out, frames.files)
    try:
        is_complete = push_frames(frames, session, writer, lock, record, state)
    except KeyboardInterrupt:  # the second Ctrl-C
        is_complete = False
    except BaseException as error:
        if not lock.is_here:
            raise
        record.progress(writer.num_frames, frames.skipped, session.statistics, "failed", error)
        if not is_live:
            state.save(writer.num_frames)
        raise
    if is_live and writer.num_frames:
        is_complete = True  # an interruption is the only end of a live source
    if is_complete:
        apply_loop_corrections(session, out)
    status = "streamed" if is_complete else "interrupted"
    record.progress(writer.num_frames, frames.skipped, session.statistics, status)
    if not is_complete:
        state.save(writer.num_frames)
        return False
    state.discard()
    print_skipped(record)
    log_submaps(session)
    return True


def push_frames(
    frames: FrameSource,
    session: Session,
    writer: ResultWriter,
    lock: FolderLock,
    record: RunMetadata,
    state: StreamCheckpoint,
) -> bool:
    """Push frames until the end or an interruption, and write the predictions in the background.

    All computed frames are written before this function returns or raises, except at a third interruption.

    Returns:
        Whether the end was reached.
    """
    total = None if frames.num_frames is None else writer.num_frames + frames.num_frames
    with (
        InterruptHandler() as interrupted,
        tqdm(total=total, initial=writer.num_frames, desc="stream", unit="frame", dynamic_ncols=True) as bar,
        BackgroundWriter(writer) as background,
        closing(predicted(frames, session)) as predictions,
    ):
        try:
            for frame, prediction in predictions:
                lock.check()
                background.add(frame, prediction)
                bar.set_postfix_str(f"memory {session.num_bytes / 1e6:,.0f} MB", refresh=False)
                bar.update()
                if interrupted:
                    return False
                record.progress(writer.num_frames, frames.skipped, session.statistics)
                if frames.kind != "live" and state.should_save():
                    background.flush()
                    state.save(writer.num_frames)
        finally:
            background.flush()
    return True


def resume_stream(
    frames: FrameSource, session: Session, out: Path, state: StreamCheckpoint
) -> tuple[ResultWriter, FrameSource]:
    """Return writer and frames that continue after the last saved state of a run, else at the beginning."""
    result = ReconstructionResult(out)
    try:
        done = state.restore(len(result))
    except (OSError, ValueError) as error:
        tqdm.write(f"Warning: {error}: all frames are computed again ({counted(len(result), 'frame')})")
        session.reset()
        return ResultWriter(out, resume=0), frames
    frames = frames.from_index(result.camera(done - 1).index + 1)
    return ResultWriter(out, resume=done), frames


def apply_loop_corrections(session: Session, out: Path) -> None:
    """Write the loop corrections of earlier frames at the end of a stream."""
    if not isinstance(session, SubmapSession):
        return
    session.finish()
    corrections = session.corrections()
    if corrections:
        moves = [correction.first_frame for correction in corrections], [move.world for move in corrections]
        write_corrections(out, Corrections(*moves))
        export_tum(ReconstructionResult(out), out, ExportOptions())
