from django.db import migrations, models

from monitoring.migration_steps import AddColumn


class Migration(migrations.Migration):

    dependencies = [
        ('monitoring', '0017_trace_and_replay'),
    ]

    operations = [
        AddColumn(
            model_name='requestbody',
            name='headers',
            field=models.BinaryField(help_text='As `gateway.kept_headers` leaves them; null = from before they were kept.', null=True),
        ),
    ]
