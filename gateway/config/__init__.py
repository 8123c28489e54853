"""The only place of the gateway that touches the database: rows in, snapshots out."""
