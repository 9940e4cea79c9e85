"""`querynas gallery`: make, import, derive and look at gallery spaces, one file per command."""

import typer

from nas.cli.gallery import build, import_, info, train

app = typer.Typer(help="Make the fixed gallery space, once.", no_args_is_help=True)
app.command()(train.train)
app.command()(build.build)
app.command("import")(import_.import_)
app.command()(info.info)
