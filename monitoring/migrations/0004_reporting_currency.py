from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("monitoring", "0003_rollups")]

    operations = [
        migrations.AddField(
            model_name="usagerecord",
            name="cost_reporting_micros",
            field=models.BigIntegerField(help_text="The cost in the reporting currency; empty = price or rate unknown.", null=True),
        ),
        migrations.AddField(
            model_name="usagerecord",
            name="charged_micros",
            field=models.BigIntegerField(help_text="What the team owes, in the reporting currency; empty = unknown.", null=True),
        ),
        migrations.AddField(
            model_name="usagerecord",
            name="reporting_currency",
            field=models.CharField(blank=True, default="", max_length=3),
            preserve_default=False,
        ),
        migrations.AddField(
            model_name="usagerecord",
            name="exchange_rate",
            field=models.CharField(
                blank=True, default="", help_text="Units of the reporting currency for one of the price's.", max_length=24
            ),
            preserve_default=False,
        ),
    ]
