"""`querynas gallery`: make, import, derive and look at gallery spaces, one file per command."""

import typer

from nas.cli.gallery import build, compress, fuse, hash, import_, info, reduce, train
from nas.cli.options import RenamedOptions

__all__ = ["app"]

app = typer.Typer(help="Make the fixed gallery space, once.", no_args_is_help=True)
app.command(cls=RenamedOptions)(train.train)
app.command()(build.build)
app.command("import")(import_.import_)
app.command()(reduce.reduce)
app.command()(compress.compress)
app.command(cls=RenamedOptions)(fuse.fuse)
app.command("hash", cls=RenamedOptions)(hash.hash_)
app.command()(info.info)
