"""`python -m xray_watcher`: the same as the command `xray-watcher`."""

from xray_watcher.cli.main import main

main()
