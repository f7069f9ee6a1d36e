"""A runtime on the stack of the upstream Python one.

    runtime.py ADDRESS PORT ROOT RESIDENT_MIB

It does what the bench compares and nothing more: a command line is split like a shell does and run in a
worker thread, its output captured whole; files are uploaded as a form, downloaded and listed. RESIDENT_MIB is
memory that the process holds besides, in small pages.
"""

import asyncio
import ctypes
import shlex
import stat
import subprocess
import sys
from pathlib import Path

import uvicorn
from fastapi import FastAPI, UploadFile
from fastapi.responses import FileResponse, JSONResponse
from pydantic import BaseModel

TIMEOUT = 300
PR_SET_THP_DISABLE = 41


class Line(BaseModel):
    command: str


def execute(line: str, root: Path) -> dict:
    try:
        done = subprocess.run(
            shlex.split(line),
            capture_output=True,
            cwd=root,
            start_new_session=True,
            text=True,
            timeout=TIMEOUT,
        )
    except Exception as error:
        return {"stdout": "", "stderr": f"Failed to execute command: {error}", "exit_code": 1}
    return {"stdout": done.stdout, "stderr": done.stderr, "exit_code": done.returncode}


def inside(root: Path, path: str) -> Path | None:
    resolved = (root / path.lstrip("/")).resolve()
    return resolved if resolved.is_relative_to(root) else None


def refused() -> JSONResponse:
    return JSONResponse({"message": "Access denied"}, status_code=403)


def application(root: Path) -> FastAPI:
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)

    @app.get("/")
    async def health():
        return {"status": "ok"}

    @app.post("/execute")
    async def run(line: Line):
        return await asyncio.to_thread(execute, line.command, root)

    @app.post("/upload")
    async def upload(file: UploadFile):
        path = inside(root, file.filename or "")
        if path is None:
            return refused()
        path.parent.mkdir(parents=True, exist_ok=True)
        content = await file.read()
        await asyncio.to_thread(path.write_bytes, content)
        return {"message": f"File '{file.filename}' uploaded successfully."}

    @app.get("/download/{name:path}")
    async def download(name: str):
        path = inside(root, name)
        if path is None:
            return refused()
        if not path.is_file():
            return JSONResponse({"message": "File not found"}, status_code=404)
        return FileResponse(path, media_type="application/octet-stream", filename=name)

    @app.get("/list/{name:path}")
    async def entries(name: str):
        path = inside(root, name)
        if path is None:
            return refused()
        if not path.is_dir():
            return JSONResponse({"message": "Path is not a directory"}, status_code=404)
        found = []
        for entry in path.iterdir():
            about = entry.stat()
            kind = "directory" if stat.S_ISDIR(about.st_mode) else "file"
            found.append(
                {
                    "name": entry.name,
                    "size": about.st_size,
                    "type": kind,
                    "mod_time": about.st_mtime,
                }
            )
        return found

    return app


def main() -> None:
    address, port, root, resident = sys.argv[1:]
    if int(resident):
        if ctypes.CDLL(None).prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0) != 0:
            sys.exit("huge pages cannot be switched off")
    # Every byte is written, so every page is there; the name keeps it.
    ballast = bytearray(b"\x01") * (int(resident) << 20)
    uvicorn.run(
        application(Path(root).resolve()),
        host=address,
        port=int(port),
        log_level="warning",
        access_log=False,
        timeout_keep_alive=600,
    )
    del ballast


if __name__ == "__main__":
    main()
