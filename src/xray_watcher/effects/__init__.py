"""What is committed together with a filing; a new effect is one module here and one entry in
`service.assembly`. Each satisfies the protocol `ledger.effect.Effect`.
"""
